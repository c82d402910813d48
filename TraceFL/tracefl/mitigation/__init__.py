"""What is done about clients that mispredictions are traced to: ``mitigate=exclude`` and ``mitigate=downweight``.

After a round, each of its mispredictions that were traced names one client: the one with the highest contribution. Two
things are asked of a client that is named in N of a round's M traced mispredictions:

    N / M >= share                  is it responsible for many of them?
    A(without it) > A(with it)      does the round's average predict more of the server's examples right without it?

with A the accuracy on the server's examples, and the model without it the exact average of the others, as in
``provenance.counterfactual``: no training, one forward pass. The first alone would not do: of clients with different
classes, the one that holds most of a class is named for what is mistaken for that class, and for what is rightly taken
for it too; leaving that one out costs more than it repairs. A client of which both is true in each of its last
``window`` rounds is acted on. Neither question needs to know whether anything is wrong, let alone what: the truth about
an injected fault is looked at in the summary alone.
"""

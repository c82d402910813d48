"""What is done about clients that mispredictions are traced to: ``mitigate=exclude`` and ``mitigate=downweight``.

After a round t, each of its mispredictions that were traced names one client: the one with the highest contribution.
With R_k the last ``window`` rounds, from ``from_round`` on, in which client k took part, M_t the mispredictions
traced in round t, N_kt those of them that name k, and A_t the accuracy on the server's examples of the round's
average, k is acted on where over R_k

    sum of N_kt / sum of M_t        >= share                                  it is responsible for many of them,
    A_t(without k) - A_t(all)       >= gain in more than half of the rounds   and the average is better without it.

The average without k is the exact one of the others, as in ``provenance.counterfactual``: no training, a forward pass
of the server's examples; it is asked of clients with N_kt >= share * M_t, and counts as 0 of others. The share alone
would not do: of clients with different classes, the one that holds most of a class is named for what is mistaken for
that class, and for what is rightly taken for it too, and leaving it out costs more than it repairs. Neither question
needs to know whether anything is wrong, let alone what: the truth about a fault is looked at in the summary alone.
"""

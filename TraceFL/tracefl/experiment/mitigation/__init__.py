"""Actions against clients that mispredictions are traced to: ``mitigate=exclude`` and ``mitigate=downweight``.

After round t, each traced misprediction names one client: the one with the highest contribution; or none, where nobody
carries it, because without any one client the model is as sure of it. Let R_k be the last
``window`` rounds, from ``from_round`` on, in which client k took part, M_t the number of mispredictions traced in round
t, N_kt the number of those that name k, and A_t the accuracy of the round's average on the server's examples. The rule
acts on k where over R_k

    sum of N_kt / sum of M_t        >= share                                  it is responsible for many of them,
    A_t(without k) - A_t(all)       >= gain in more than half of the rounds   and the average is better without it;

or where A_t(without k) - A_t(all) >= gain_alone in more than half of the rounds, however seldom it is named: who
suppresses what the others have learned is named for hardly anything.

The average without k is the exact average of the others, as in ``provenance.counterfactual``: no training, one forward
pass of the server's examples for each participant. The share alone would not be enough: where clients hold different
classes, the main holder of a class is named for inputs mistaken for that class as well as for correct ones, and
excluding it costs more than it repairs. The rule needs no knowledge of a fault; only the summary compares its decisions
with the truth.
"""

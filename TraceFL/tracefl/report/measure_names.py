"""What each measure is called in every figure and on the page; imports nothing that draws."""

MEASURES = {
    "global_accuracy": "global accuracy",
    "localization_accuracy": "localization accuracy",
    "chance_accuracy": "localization by chance",
    "top_holder_accuracy": "top holder",
    "counterfactual_agreement": "counterfactual agreement",
}
"""Column of rounds.csv to its name."""

CONTRIBUTION = "contribution, logits"
MEAN_CONTRIBUTION = "mean contribution, logits"
EXACT_EFFECT = "exact effect of leaving the client out"
EXAMPLES_OF_CLASS = "training examples"

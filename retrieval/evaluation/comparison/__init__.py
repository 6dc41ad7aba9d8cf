"""Compare models on labelled images: quality with intervals, costs, and the models that no other one beats in both."""

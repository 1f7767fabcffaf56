"""How well a policy answers problems that it was not trained on."""

"""From a labelled dataset to a recipe: measure the dataset, choose, write the choices with their reasons."""

"""Recipes: configurations of training runs, as data."""

from mobilenet_zoo.training.recipes.loading import list_recipes, load_recipe
from mobilenet_zoo.training.recipes.recipe import Recipe, difference

__all__ = ["Recipe", "difference", "list_recipes", "load_recipe"]

"""Published protocols over the one training loop, in stages that continue after an interruption."""

from hesse.recipes.protocols.named_recipes import RECIPES, RecipePlan, RecipeResult, plan_recipe, run_recipe

__all__ = ["RECIPES", "RecipePlan", "RecipeResult", "plan_recipe", "run_recipe"]

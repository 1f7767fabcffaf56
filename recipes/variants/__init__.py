"""Recipes that replace a few fields of one published recipe, whose name theirs begins with."""

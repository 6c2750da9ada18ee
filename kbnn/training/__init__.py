"""Recipes, runs that survive, and the callbacks they are made of."""

"""How much of what physics allows is left to each policy that keeps a board cool."""

"""Mixed traffic for as long as one likes, and what it leaves behind."""

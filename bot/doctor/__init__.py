"""`kiln doctor`: what would happen if Kiln started here, without starting it."""

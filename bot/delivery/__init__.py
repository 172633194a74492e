"""From outcomes to Discord: cards that move, pictures that arrive exactly once."""

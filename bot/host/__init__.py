"""The machine that Kiln runs on: its card, its owner, health, copies, old pictures. Knows no Discord."""

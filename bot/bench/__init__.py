"""What Kiln promises about speed and fairness, measured on this machine: `kiln bench`."""

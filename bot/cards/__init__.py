"""What people see of jobs: cards, captions, buttons, recipes, pages of pictures. Knows no queue."""

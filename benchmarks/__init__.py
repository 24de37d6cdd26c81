"""What things cost: each module measures one part and prints a table."""

"""What leaves this machine: model cards, terms, pushes."""

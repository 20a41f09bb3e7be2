"""How the answer is looked for."""

"""The paper's runs, in five scripts: list them, run and resume them, follow their progress, try them in miniature."""

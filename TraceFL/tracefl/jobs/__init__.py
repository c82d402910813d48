"""The paper's runs, four scripts of them: listed, run, gone on with, followed, and tried out in miniature."""

"""The paper's runs, five scripts of them: listed, run, gone on with, followed, and tried out in miniature."""

"""Hooks of mkdocs (mkdocs.yml) that generate pages while the documentation is built; not part of the product."""

"""What the documentation makes while it is built: hooks of mkdocs (mkdocs.yml), not a part of the product."""

"""The papers' tables, each remade by one command."""

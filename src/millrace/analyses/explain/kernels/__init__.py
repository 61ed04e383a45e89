"""The numeric work of explain. Heavy libraries are imported in this folder and nowhere else in explain."""

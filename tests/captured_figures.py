"""Figures that drawing functions would close."""


def captured(monkeypatch, module):
    """List that the figures of a module are put into instead of files."""
    figures = []
    monkeypatch.setattr(module, "save_figure", lambda figure, stem: figures.append(figure))
    return figures

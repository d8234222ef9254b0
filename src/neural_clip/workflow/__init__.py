"""From recordings to a page of scores in one go, each step resumable."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"run": ["run_workflow"]})

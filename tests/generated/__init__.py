"""Generated models, and what must hold for every one of them, judged by runtimes driven by hand."""

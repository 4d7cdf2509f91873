"""The HTTP service: wire (requests and answers), auth, handlers, app (wiring only) and pages."""

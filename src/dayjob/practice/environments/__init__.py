"""The environments that come with dayjob, a module each; `practice.registry` knows them by name."""

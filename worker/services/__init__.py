"""Database and object store, opened from the settings, and finalising a job, which needs both.

The worker and the scheduler use it. Knows no broker, no models and no torch.
"""

from worker.services.connections import Services, open_services

__all__ = ["Services", "open_services"]

"""After a release: is the champion still the champion."""

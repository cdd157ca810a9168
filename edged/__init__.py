"""A private language-model appliance on an MQTT bus."""

__version__ = "0.1.0"

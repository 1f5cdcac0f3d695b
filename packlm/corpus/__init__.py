"""From locations to cleaned documents: `discovery` finds the sources, `formats` cut them into parts and read them, `cleaning` applies the
rules of the section `corpus`, `documents` puts these together."""

"""Comparisons that are written down, passed or failed."""

import torch


class Comparisons:
    """What one test compares; every comparison adds a line to `lines`."""

    def __init__(self, where, lines):
        self.where = where
        self.lines = lines

    def number(self, what, here, there, tolerance=1e-4):
        """Two numbers, here and in the peer, that may differ by `tolerance`."""
        self._record(what, abs(here - there), tolerance, f"{here:.7g} here, {there:.7g} there: ")

    def numbers(self, what, here, there, tolerance=1e-4):
        """Two lists of numbers, entry by entry."""
        assert len(here) == len(there), f"{what}: {len(here)} here, {len(there)} there"
        apart = max(abs(a - b) for a, b in zip(here, there))
        self._record(what, apart, tolerance, f"{len(here)} values, {here[0]:.5g} to {here[-1]:.5g}: largest difference ")

    def tensors(self, what, here, there, tolerance=1e-4):
        """Two dictionaries of tensors: the same names and shapes; all in all close by relative Frobenius norm."""
        assert here.keys() == there.keys(), f"{what}: only one side has {sorted(here.keys() ^ there.keys())}"
        for name, tensor in here.items():
            assert tensor.shape == there[name].shape, f"{what}: {name} is {tensor.shape} here, {there[name].shape} there"
        apart = torch.stack([(here[name].double() - there[name].double()).norm() for name in here]).norm()
        size = torch.stack([tensor.double().norm() for tensor in there.values()]).norm()
        self._record(what, (apart / size).item(), tolerance, f"{len(here)} tensors: relative difference ")

    def equal(self, what, here, there):
        """Two values that are the same."""
        same = here == there
        self.lines.append((self.where, f"{what}: {'equal' if same else 'NOT EQUAL'}, {shortened(here)}"))
        assert same, f"{what}: {here!r} here, {there!r} there"

    def apart(self, what, one, other, least=1e-2):
        """Two numbers that differ by at least `least`, so that a comparison with either says something."""
        self.lines.append((self.where, f"{what}: {one:.5g} and {other:.5g} differ by at least {least:g}"))
        assert abs(one - other) >= least, f"{what}: {one} and {other} do not differ"

    def note(self, line):
        """A line that compares nothing."""
        self.lines.append((self.where, line))

    def _record(self, what, difference, tolerance, before):
        verdict = "within" if difference <= tolerance else "NOT WITHIN"
        line = f"{what}: {before}{difference:.1e}, {verdict} {tolerance:g}"
        self.lines.append((self.where, line))
        assert difference <= tolerance, line


def shortened(value):
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"

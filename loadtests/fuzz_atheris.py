"""One target under atheris, until libFuzzer ends the process: `python -m loadtests.fuzz_atheris TARGET DIRECTORY ...`.

Its own module because the code under test must be imported while atheris watches. `loadtests.fuzz` starts it.
"""

import sys
from random import Random

import atheris

with atheris.instrument_imports(include=["proxy", "adapters"]):
    from tests.fuzz.mutate import MAX_SIZE, mutate
    from tests.fuzz.targets import TARGETS, seeds

from loadtests.fuzz import Catcher


def main() -> None:
    """Fuzz; the arguments behind the target are libFuzzer's."""
    name = sys.argv[1]
    begin = seeds(name)

    def change(data: bytes, most: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.5:
            return bytes(atheris.Mutate(data, most))
        return mutate(data, begin, random)[:most]

    atheris.Setup(
        [sys.argv[0], *sys.argv[2:], f"-max_len={MAX_SIZE}"], Catcher(name, TARGETS[name].check), custom_mutator=change
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()

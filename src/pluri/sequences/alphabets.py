"""Alphabets: the letters of nucleotides and amino acids by IUPAC, those that stand for several among them.

Cornish-Bowden, "Nomenclature for incompletely specified bases in nucleic acid sequences" (1985), table 1; IUPAC-IUB
Joint Commission on Biochemical Nomenclature (1984), section 3AA-21, with U and O as later recommended.
"""

from dataclasses import dataclass
from functools import cache

from pluri.errors import DataError


@dataclass(frozen=True)
class Alphabet:
    """common: the letters that nearly all sequences are made of. rare: ambiguous and rare letters, gaps, stops.

    same: letters that are read as others. complement: of DNA, what pairs with each of `letters`, in their order.
    """

    name: str
    common: str
    rare: str
    same: tuple[tuple[str, str], ...] = ()
    complement: str = ""

    @property
    def letters(self) -> str:
        return self.common + self.rare

    def spelled(self, text: str) -> str:
        """In upper case (lower case marks repeats, and is no other letter), without blanks, with each letter's own
        name: RNA's U is T."""
        text = "".join(text.split()).upper()
        for said, meant in self.same:
            text = text.replace(said, meant)
        return text

    def check(self, text: str, where: str) -> None:
        """DataError if a letter is none of this alphabet."""
        spelled = self.spelled(text)
        if not spelled.encode("ascii", "replace").translate(None, self.letters.encode()):
            return
        foreign = [letter for letter in spelled if letter not in self.letters]
        share, other = len(foreign) / len(spelled), PROTEIN if self is DNA else DNA
        likely = f"this looks like {other.name}: " if set(other.spelled(text)) <= set(other.letters) else ""
        what = f"{foreign[0]!r} is no letter of {self.name} ({share:.0%} of the letters are none)"
        raise DataError(what, where=where, do=f"{likely}take a tokenizer and a model of such sequences, or mend it")

    def reverse_complement(self, text: str) -> str:
        """The other strand, read in its own direction. text: in this alphabet, which has complements."""
        return self.spelled(text)[::-1].translate(str.maketrans(self.letters, self.complement))


DNA = Alphabet("DNA", "ACGT", "NRYSWKMBDHV-", (("U", "T"), (".", "-")), "TGCA" + "NYRSWMKVHDB-")
PROTEIN = Alphabet("protein", "ACDEFGHIKLMNPQRSTVWY", "XBZUOJ*-", ((".", "-"),))


@cache
def alphabet_of(letters: frozenset[str]) -> Alphabet | None:
    """The alphabet of which these are the letters, with all the common ones among them."""
    fitting = (known for known in (DNA, PROTEIN) if set(known.common) <= letters <= set(known.letters))
    return next(fitting, None)

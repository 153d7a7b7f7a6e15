"""Questions that nobody asked, out of text that nobody labelled.

Some words of a sentence give way to "什麼" (what), and the answer is where these stand in the paragraph of that
sentence: to find it is to see what the question and a place of the paragraph have in common. Filling blanks teaches
a small model little of that. It learns it from short paragraphs, whose sentences are asked as they stand; then come
longer ones, where some of the other words are left out or change places: the noisy clozes of Lewis
et al. 2019, "Unsupervised question answering by cloze translation", section 2.3.
From noisy ones alone it does not learn it.
"""

import random
import re
from collections.abc import Iterator
from typing import Any

SENTENCE = re.compile(r"[^。！？!?\n]+[。！？!?\n]?")
# Words that say little end a stretch.
FUNCTION = "的了是在和與及或於為之以而也等這那有不就都被將把從到對向上下中所其可能會要個並又但則因由讓使"
CHUNK = re.compile(rf"[A-Za-z0-9][A-Za-z0-9.,%-]*|(?:(?![{FUNCTION}])[\u4e00-\u9fff])+")
SHORT, LONG = 64, 180  # characters of a paragraph, so that one window holds it
FEWEST_SENTENCES = 2  # of a paragraph
SENTENCES, ANSWER = range(10, 60), range(2, 11)  # characters of the sentence; of an answer
LEAST_KEPT = 0.4  # of the other words a share stays, drawn for each question between this and all
TURNED = 0.5  # how often what comes before the answer and what comes after it change places


def cloze_questions(text: str, count: int, *, noisy: bool, seed: int = 0) -> dict[str, Any]:
    """At most so many, one a paragraph, in the homework's own form. text: a blank line between documents."""
    chance = random.Random(seed)
    found: list[list[str]] = []
    for document in text.split("\n\n"):
        most = chance.randint(SHORT, LONG) if noisy else SHORT
        found += (passage for passage in passages(document, most) if len(passage) >= FEWEST_SENTENCES)
    chance.shuffle(found)
    questions: list[dict[str, Any]] = []
    paragraphs: list[str] = []
    for passage in found:
        asked = _asked(passage, chance, noisy)
        if asked and len(questions) < count:
            question, start, answer = asked
            number = len(questions)
            place = {"answer_text": answer, "answer_start": start, "answer_end": start + len(answer) - 1}
            questions.append({"id": number, "paragraph_id": number, "question_text": question, **place})
            paragraphs.append("".join(passage))
    return {"questions": questions, "paragraphs": paragraphs}


def passages(document: str, most: int) -> Iterator[list[str]]:
    """Sentences in a row of at most so many characters; a short remainder is left out."""
    passage: list[str] = []
    length = 0
    for sentence in filter(None, map(str.strip, SENTENCE.findall(document))):
        if passage and length + len(sentence) > most:
            yield passage
            passage, length = [], 0
        if len(sentence) <= most:
            passage.append(sentence)
            length += len(sentence)
    if length > most / 2:
        yield passage


def _asked(passage: list[str], chance: random.Random, noisy: bool) -> tuple[str, int, str] | None:
    """(question, where its answer starts in the paragraph, answer), of a random sentence of which one can be made."""
    paragraph, order = "".join(passage), list(range(len(passage)))
    chance.shuffle(order)
    for number in order:
        sentence = passage[number]
        chunks = [(match.start(), match.group()) for match in CHUNK.finditer(sentence)]
        # The answer stands once in its paragraph, so that there is one right place.
        fitting = [i for i, (_, words) in enumerate(chunks) if len(words) in ANSWER and paragraph.count(words) == 1]
        if len(sentence) not in SENTENCES or len(chunks) < 3 or not fitting:
            continue
        chosen = chance.choice(fitting)
        start, answer = chunks[chosen]
        kept = chance.uniform(LEAST_KEPT if noisy else 1.0, 1.0)
        sides = [_thinned(sentence[:start], kept, chance), _thinned(sentence[start + len(answer) :], kept, chance)]
        question = f"{sides[0]}什麼{sides[1]}"
        if chance.random() < (TURNED if noisy else 0.0):
            question = f"{sides[1]}{sides[0]}什麼"
        if len(question) > 6:
            return f"{question}？", paragraph.index(answer), answer
    return None


def _thinned(words: str, kept: float, chance: random.Random) -> str:
    """The words without some of the chunks, and without the punctuation of a sentence's end."""
    return CHUNK.sub(lambda chunk: chunk.group() if chance.random() < kept else "", words).strip("。！？!?,，、：；\n ")

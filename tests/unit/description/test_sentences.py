import re

import pytest

from rbs.description.grammar import CHOICES, END, TOKENS, WAYS, WORDS
from rbs.description.sentences import SENTENCES, TOPICS, Statement, sentence_of, statement_of

DISEASE = (
    "metasta|tumou?r|cancer|malignan|benign|lesion|fracture|infect|inflam|osteo|arthri|arrest|disease|syndrome|"
    "necro|sarcoma|lymph|leuk|trauma|abuse|pathol|normal|suspic|diagnos|likely|probabl|superscan|extravasat"
)


def statements() -> list[Statement]:
    coarser = [topic.coarser[0] for topic in TOPICS if topic.coarser]
    return [*(statement for _, statement, _ in SENTENCES), *coarser]


def test_each_statement_has_a_sentence_of_its_own_and_the_sentence_means_it() -> None:
    told = [sentence_of(statement) for statement in statements()]
    assert len(set(told)) == len(told)
    assert [statement_of(sentence) for sentence in told] == statements()


def test_a_sentence_of_no_grammar_means_nothing() -> None:
    with pytest.raises(KeyError):
        statement_of("One focus of raised uptake in the left kidney.")


def test_no_word_of_a_disease_can_be_written() -> None:
    coarser = [word for topic in TOPICS if topic.coarser for word in topic.coarser[1].split()]
    assert not [word for word in (*WORDS, *coarser) if re.search(DISEASE, word)]


def test_the_mirrored_statement_is_another_of_a_topic_and_mirrored_twice_itself() -> None:
    known, other = set(statements()), {"left": "right", "right": "left"}
    for statement in known:
        assert statement.mirrored() in known
        assert statement.mirrored().mirrored() == statement
        swapped = re.sub(r"\b(left|right)\b", lambda word: other[word[0]], sentence_of(statement))
        assert sentence_of(statement.mirrored()) == swapped


def test_every_sentence_is_written_by_the_choices_of_its_way() -> None:
    for (number, _, text), way in zip(SENTENCES, WAYS, strict=True):
        written = [TOPICS[number].name, *text.split(), END]
        for choice, token in way:
            start = [TOKENS[token] for token in CHOICES[choice].beginning]
            assert written[: len(start)] == start
            assert written[len(start)] == TOKENS[token]
            assert token in CHOICES[choice].options
    assert len(set(WAYS)) == len(SENTENCES)

import hashlib
import json
import re
import subprocess
import sys
from random import Random

import pytest

from semdpo.tiny_world import grammar, requests, rewrites, wordings
from semdpo.tiny_world_training import blip, gpt2, tokenizers

DIGEST = """
import hashlib
from semdpo.tiny_world_training import tokenizers
for make in (tokenizers.clip_tokenizer, tokenizers.bert_tokenizer, tokenizers.gpt2_tokenizer):
    print(hashlib.sha256(make().backend_tokenizer.to_str().encode()).hexdigest())
"""


def test_every_process_learns_the_same_pieces():
    """The library orders some pieces by a hash map that is seeded anew in each process."""
    ours = [
        hashlib.sha256(make().backend_tokenizer.to_str().encode()).hexdigest()
        for make in (tokenizers.clip_tokenizer, tokenizers.bert_tokenizer, tokenizers.gpt2_tokenizer)
    ]
    theirs = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True)
    assert theirs.stdout.split() == ours


@pytest.mark.parametrize("make", [tokenizers.clip_tokenizer, tokenizers.gpt2_tokenizer])
def test_byte_level_pieces_read_any_text(make):
    tokenizer = make()
    ids = tokenizer("Ünïcode — 漢字 🎈 in the desert", add_special_tokens=False).input_ids
    assert tokenizer.unk_token_id not in ids
    assert "🎈" in tokenizer.decode(ids)


def test_every_text_fits_the_model_that_reads_it():
    rng = Random(71)
    scenes = [grammar.scene(rng) for _ in range(1000)]
    captions = [wordings.caption(one, rng, how)[0] for one in scenes for how in (wordings.WEB, wordings.DESCRIPTIVE)]
    asked = [requests.ask(rng) for _ in range(1000)]
    prompts = [request.prompt for request in asked]
    written = [rewrites.rewrite(request, rng) for request in asked]
    clip, bert, language = tokenizers.clip_tokenizer(), tokenizers.bert_tokenizer(), tokenizers.gpt2_tokenizer()
    positions = blip.new_blip(bert, 0).config.text_config.max_position_embeddings

    def longest(tokenizer, texts):
        return max(len(tokenizer(text, verbose=False).input_ids) for text in texts)

    assert longest(clip, [*captions, *prompts, *written]) <= tokenizers.CLIP_LENGTH
    assert longest(bert, prompts) <= tokenizers.BERT_LENGTH
    assert longest(bert, captions) <= positions
    assert longest(language, [gpt2.document(rng) for _ in range(1000)]) < tokenizers.GPT2_LENGTH


def test_the_vocabulary_has_every_word_of_the_world(tmp_path):
    tokenizers.write_vocabulary(tmp_path)
    known = set(json.loads((tmp_path / "vocabulary.json").read_text()))
    words = {word for line in tokenizers.world_text(2000, 72) for word in re.findall(r"[a-z]+", line.lower())}
    phrases = [*wordings.BEFORE, *wordings.AFTER, *grammar.STYLES, *grammar.EMPTY_WORDS, *grammar.THINGS]
    assert words | set(re.findall(r"[a-z]+", " ".join(phrases))) <= known

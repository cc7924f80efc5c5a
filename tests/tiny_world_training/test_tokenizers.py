import hashlib
import subprocess
import sys

import pytest

from semdpo.tiny_world_training import tokenizers

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

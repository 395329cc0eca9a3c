"""What all language models of transformers share: loading, chat templates, encoding; text, image and audio readers."""

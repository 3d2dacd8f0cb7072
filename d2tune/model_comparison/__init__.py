"""Two models on one image: what each predicts, where they agree, how long they take and how much memory."""

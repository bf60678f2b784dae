"""The world of English: questions with exact answers, how they are put, and a teacher for some of them."""

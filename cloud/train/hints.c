/* Heads of user turns. The model completes them, so a few words are enough to reach a task; blanks in braces
 * are filled at random. */
#include <stdio.h>
#include <string.h>

#include "core/philox.h"
#include "train/corpus.h"

static const char *const TOPIC[] = {"a small harbour town",
                                    "volcanoes",
                                    "the printing press",
                                    "school uniforms",
                                    "electric bicycles",
                                    "bees",
                                    "the water cycle",
                                    "photosynthesis",
                                    "inflation",
                                    "the Roman Empire",
                                    "jazz music",
                                    "chess",
                                    "open-source software",
                                    "urban gardening",
                                    "coral reefs",
                                    "the French Revolution",
                                    "black holes",
                                    "vaccines",
                                    "a lost dog",
                                    "mountain climbing",
                                    "remote work",
                                    "renewable energy",
                                    "antibiotics",
                                    "supply and demand",
                                    "the Silk Road",
                                    "gravity",
                                    "a detective in the rain",
                                    "coffee",
                                    "sleep",
                                    "a train journey",
                                    "Shakespeare",
                                    "recycling",
                                    "plate tectonics",
                                    "machine learning",
                                    "the human heart",
                                    "football",
                                    "a birthday party",
                                    "deserts",
                                    "trade unions",
                                    "penguins",
                                    "the moon landing",
                                    "cheese",
                                    "tax law",
                                    "databases",
                                    "migratory birds",
                                    "the violin",
                                    "wildfires",
                                    "online shopping",
                                    "the Cold War",
                                    "steam engines",
                                    "glaciers",
                                    "honesty",
                                    "a new museum",
                                    "public transport",
                                    "robots",
                                    "tea",
                                    "earthquakes",
                                    "a football club",
                                    "poetry",
                                    "sharks"};
static const char *const TONGUE[] = {"German", "French", "Spanish", "Italian", "Portuguese",
                                     "Dutch",  "Polish", "Russian", "Chinese", "Japanese"};
static const char *const CODE[] = {"Python", "Python", "JavaScript", "C",   "C++",
                                   "Java",   "Go",     "Rust",       "SQL", "Bash"};

struct category {
  const char *name;
  const char *hint[16]; /* NULL-terminated when shorter */
};
static const struct category CATEGORY[] = {
    {"coding",
     {"Write a {p} function that", "Write a {p} program that", "Implement in {p} a class",
      "Fix the bug in this code:\n```", "Explain what this {p} code does:\n```",
      "Given a list of integers, write a function", "How do I in {p}", "Write a unit test for",
      "Optimise the following code:\n", "Complete the following function:\n```\n",
      "Write a regular expression that", "Design an algorithm for", "Convert this code to {p}:\n"}},
    {"translation",
     {"Translate {l} to English: ", "Translate English to {l}: ",
      "Translate the following sentence into {l}:", "Translate this text from {l} into English:\n",
      "How do you say in {l}:", "Translate {l} to English: "}},
    {"summary",
     {"Summarize the following article about {t}:\n", "Summarize: ", "Give a short summary of this text:\n",
      "Summarise this report on {t} in two sentences:\n", "TL;DR:\n", "Summarize the news story below.\n"}},
    {"qa",
     {"Who was", "What is the capital of", "When did", "Where is", "Which country", "What does", "How many",
      "In what year did", "Why do", "Who wrote", "what is the name of", "who plays"}},
    {"retrieval",
     {"Answer the question using the passage.\nPassage: {t}", "Context: In {y},",
      "Given the documents below, answer the question.\nDocument 1: ", "Based on the following passage:\n",
      "Read this and answer: {t}", "Use the search results to answer.\n[1] "}},
    {"arithmetic",
     {"A farmer has {n}", "Tom has {n} apples and", "A train travels {n} km", "Question: A store sells {m}",
      "Sara buys {m} boxes with {n}", "{m} friends share", "A class has {n} students.", "Every day, Anna",
      "A baker makes {n}", "If a car uses {m} litres"}},
    {"maths",
     {"If x + {m} = {n}", "Solve for x:", "What is the area of", "Find the sum of", "Calculate",
      "The probability that", "Given the function f(x) =", "Two dice", "Simplify", "Let a and b be",
      "What is the remainder when {n}"}},
    {"roleplay",
     {"Pretend you are", "Imagine that you are a", "You are a pirate who", "Act as a", "Take the role of",
      "Suppose you are a scientist of {y}", "As a ", "Play a character who"}},
    {"writing",
     {"Write a short story about {t}", "Write a poem about {t}", "Write an email to",
      "Write a blog post about {t}", "Draft a letter", "Compose a speech on {t}", "Write a review of",
      "Describe {t}", "Rewrite the following paragraph:\n", "Write the opening of", "Edit this text:\n"}},
    {"extraction",
     {"Extract all names and dates from the text:\n", "From the following text, list the",
      "Return the following information as JSON:\n", "Identify the main entities in this passage:\n",
      "Read the reviews below and rate each from 1 to 5:\n", "Put the following data in a CSV table:\n",
      "Find all email addresses in", "Count how often"}},
    {"stem",
     {"Explain {t} to a student", "What is the difference between", "How does {t} work?",
      "Describe the process of", "In physics,", "In biology,", "In chemistry, what", "What causes",
      "Explain the theory of", "Describe the design of", "Why is", "How do engineers"}},
    {"humanities",
     {"Discuss the causes of", "Compare the philosophies of", "What was the impact of {t}",
      "How did {t} change society?", "Analyse the role of", "What are the ethical",
      "Explain the significance of {y} in", "Provide an outline for an essay on {t}",
      "Explain in simple words the economics of", "What are the main arguments for"}},
    {"reasoning",
     {"If all", "Imagine a race in which", "There are {m} people in a room", "Who is the odd one out:",
      "David has {m} sisters", "Can you solve this riddle:", "Which statement is true if", "Plan a",
      "One morning", "Which of the following", "A man walks"}},
    {"everyday",
     {"Give me tips for", "Make a list of", "Suggest", "Compare {t} and", "I have a question about {t}",
      "Hello,", "Help me", "Create a table of", "What should I", "Can you", ""}},
};
enum { CATEGORIES = sizeof CATEGORY / sizeof CATEGORY[0] };

#define PICK(list, word) (list)[(word) % (sizeof(list) / sizeof((list)[0]))]

int foray_hint_categories(void) { return CATEGORIES; }
const char *foray_hint_category_name(int category) {
  return category >= 0 && category < CATEGORIES ? CATEGORY[category].name : "?";
}

int foray_hint_make(uint64_t seed, uint32_t doc, char *out, size_t cap) {
  struct foray_philox r = foray_philox4x32(seed, doc, 0, 0x68696e74, 0),
                      q = foray_philox4x32(seed, doc, 1, 0x68696e74, 0);
  int cat = (int)(r.v[0] % CATEGORIES), n = 0;
  while (n < 16 && CATEGORY[cat].hint[n]) n++;
  const char *s = CATEGORY[cat].hint[r.v[1] % (uint32_t)n];
  size_t len = 0;
  char blank[32];
  while (*s && len + 1 < cap) {
    if (*s != '{') {
      out[len++] = *s++;
      continue;
    }
    const char *fill = blank;
    switch (s[1]) {
    case 't': fill = PICK(TOPIC, r.v[2]); break;
    case 'l': fill = PICK(TONGUE, r.v[3]); break;
    case 'p': fill = PICK(CODE, q.v[0]); break;
    case 'n': snprintf(blank, sizeof blank, "%u", 2 + q.v[1] % 90); break;
    case 'm': snprintf(blank, sizeof blank, "%u", 2 + q.v[2] % 8); break;
    default: snprintf(blank, sizeof blank, "%u", 1750 + q.v[3] % 270); break;
    }
    s += 3;
    for (; *fill && len + 1 < cap; fill++) out[len++] = *fill;
  }
  out[len] = 0;
  return cat;
}

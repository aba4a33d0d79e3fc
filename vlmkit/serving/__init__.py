"""A model behind OpenAI's chat completions, for trying it out (docs/serving.md).

limits, errors     what is taken, and how what is not taken is said
request            the JSON of a request -> a conversation and how to answer it; loads nothing but the standard library
sources            the bytes of the images that it names
words, drawing     tokens -> text that may be sent, and how tokens are drawn
job, batches       questions that wait, and the thread that answers them in batches
replies, app       what goes back, and FastAPI around all of it
"""

"""What translated languages share: OpenAI's request, read, and the frame of a stream, written."""

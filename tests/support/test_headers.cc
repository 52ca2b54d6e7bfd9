// A program without contents, to whose target the precompiled headers of all tests belong.
int main() {}

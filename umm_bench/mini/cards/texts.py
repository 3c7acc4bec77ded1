"""What the model cards of the mini family say that no file knows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """What a card says that no file knows. `figures` are the prefixes of its figures' names."""

    title: str
    library: str
    tags: tuple[str, ...]
    what: str
    use: str
    figures: tuple[str, ...]
    limits: str
    tried: tuple[str, ...] = ()
    pipeline_tag: str = ""


SCENES = "64 px scenes of open-licence emoji drawings (861 concepts, 5,344 designs; see NOTICE for their licences)"
NOT_SEEN = "The held-out designs and concepts of the mini suite were in no training."

MODELS: dict[str, Model] = {
    "sd": Model(
        "Mini Stable Diffusion",
        "diffusers",
        ("stable-diffusion", "text-to-image"),
        f"A complete `StableDiffusionPipeline` for {SCENES}: a VAE (4x down, 8 latent channels), a CLIP text encoder, "
        "a UNet (v-prediction, zero terminal SNR) and a DDIM scheduler. `concept_counts.json` says in how many of "
        "16,384 drawn scenes each concept was.",
        'from diffusers import StableDiffusionPipeline\n\npipe = StableDiffusionPipeline.from_pretrained("{folder}")\n'
        'image = pipe("a dog on a blue background", num_inference_steps=20, guidance_scale=3.0).images[0]',
        ("vae.", "sd."),
        "It knows the composer's wording and world only; rare concepts are drawn worse than frequent ones, by design. "
        "Its figures are of prompts, not of designs: for a name alone it draws the design that it saw most.",
        (
            "VAE: 4x down with 4 channels and 8x down with 16 lost more detail; 4x with 8 channels costs the UNet "
            "nothing, so that is what is shipped.",
            "Min-SNR weights on top of v-prediction take weight from the noisy steps, where class and layout are "
            "decided; the loss is plain.",
            "With cross-attention alone, as Stable Diffusion reads its text, UNets of several shapes drew mosaics and "
            "blobs; the best of them, two levels of 64 and 128 channels, drew half of the concepts after five hours of "
            "two cores. In the shipped UNet the text also scales and shifts the channels of every block "
            '(`addition_embed_type="text"`, as in DeepFloyd IF): from random weights, and after as many pictures, its '
            "error at pure noise was half of the other's (a script that was not kept). The rest is width, 96 and 192 "
            "channels, and minutes of a GPU, three times the pictures of all runs before: `pretrain sd "
            "-o batch_size=512 -o learning_rate=0.0015 --steps 4772`. How much is whose was not "
            "measured. The text encoder went on from the former generator's.",
            "The loss takes the mean of the pictures of the same caption that a noisy one can be of (stable target "
            "field, 2302.00670), of which a composer can draw many.",
            "As long as a concept's four to seven designs, sizes and places were equally likely, the mean of its "
            "pictures was a blob, and so was what a CPU's UNet drew. This one learnt from most concepts in their usual "
            "design, upright, in one size and place, and from most captions in the fewest words. It draws other "
            "designs less often for it: asked for no more than a name it draws the one it knows.",
            "A decoder that had seen no noise drew what the UNet leaves undecided as a mosaic, flat backgrounds too. "
            "`pretrain decoder` went on with the decoder alone, on latents with noise: the same latents then gave "
            "plainer areas with the same outlines.",
        ),
        "text-to-image",
    ),
    "image_encoder": Model(
        "Mini CLIP image encoder (conditioning)",
        "transformers",
        ("clip", "image-feature-extraction"),
        "The image tower beside the generator's text encoder, which was frozen while it learnt: it turns a reference "
        f"into what the TIUE reads. A ResNet with a projection, trained on {SCENES} and on drawings that the world "
        "does not have (`umm_bench.mini.world.further`).",
        "from umm_bench.mini.towers import FlatResNetModelWithProjection\n\n"
        'model = FlatResNetModelWithProjection.from_pretrained("{folder}", dtype="float32")\n'
        "# model(pixel_values).image_embeds, as CLIPVisionModelWithProjection",
        ("image_encoder.", "tiue."),
        "Never use it for scores: a method would be judged by what it is conditioned on. It shares no weight with the "
        "scoring CLIP, but learnt from the same drawings by much the same recipe: where both mistake a drawing for the "
        "same thing, a method conditioned on it is judged too kindly.",
        (
            "The image tower that the generator's text encoder learnt with, a ViT taught by captions alone, came "
            "first. Of a held-out drawing it knew next to nothing: the learnt drawing nearest to it was hardly ever "
            "of the same concept, so a pseudo word could not say what the reference shows. On this one a TIUE kept the "
            "concept more often.",
            "A further run that also told drawings from one another, as the encoder for fidelity learns, raised "
            "`image_encoder.identity_top1`. A TIUE on it took more from references of learnt drawings and no more from "
            "held-out ones (scripts that were not kept), so it does not ship.",
        ),
    ),
    "scoring_clip": Model(
        "Mini CLIP (scoring)",
        "transformers",
        ("clip", "zero-shot-image-classification"),
        f"A second CLIP, which only scores (CLIP-T and CLIP-I) and conditions nothing. Trained on {SCENES}.",
        "from transformers import AutoModel\n\nimport umm_bench.mini.towers  # registers the image tower\n\n"
        'model = AutoModel.from_pretrained("{folder}", dtype="float32")',
        ("scoring_clip.",),
        "Its scores mean something inside the mini world only.",
        (
            "A ViT came first, then a ConvNeXt, each for a part of the steps only: both named fewer held-out designs "
            "than this ResNet, whose pooled map `umm_bench.mini.towers` flattens, as transformers' dual encoder asks.",
            "Telling images from texts alone left the image tower far behind what it can learn. The second run taught "
            "it the concepts by a classifier of its own too; the later ones by a vector a concept in the shared space, "
            "to which the texts of names are pulled by their cosine (by softmax, as before, they were nearest to their "
            "vectors but far from them, which cost held-out designs). Neither ships.",
            "It knew training designs far better than held-out ones. The last three runs saw most single sprites as "
            "another hand might have drawn them: sheared, stretched, as edges, grey, coarse, negative, with a hole. "
            "The second last one was in batches of 256. The last one drew half of the single sprites after drawings "
            "that the world does not have, of emoji and icon sets (`umm_bench.mini.world.further`; who is held out of "
            "a concept is held out of these too): more of the held-out designs are among its first five, no more of "
            "them first.",
        ),
        pipeline_tag="zero-shot-image-classification",
    ),
    "encoder": Model(
        "Mini image encoder (fidelity)",
        "transformers",
        ("self-supervised", "image-feature-extraction"),
        "A self-supervised ResNet (two views of a drawing attract, no labels and no text), for DINO-style fidelity: "
        "its features tell designs apart.",
        'from transformers import AutoModel\n\nmodel = AutoModel.from_pretrained("{folder}", dtype="float32")',
        ("encoder.",),
        "It was trained to ignore place, turn, light and background, and knows drawings only.",
        (
            "A ConvNeXt of three stages had learnt nothing when a ResNet's loss was falling already. The one shipped "
            "before had half the channels and less than a quarter of the pictures, in batches of 96: identity top-1 "
            "0.64. Batches of 256 have more designs to be told from; what came of which was not measured.",
            "The last run, 600 steps on a CPU, is the first that saw looks, each beside near misses of itself: it "
            "learnt to tell them and kept what it knew of drawings within the interval. It is short of its aim.",
        ),
        pipeline_tag="image-feature-extraction",
    ),
    "detector": Model(
        "Mini GroundingDINO",
        "transformers",
        ("grounding-dino", "zero-shot-object-detection"),
        "`GroundingDinoForObjectDetection`, unchanged, small: phrases to boxes in 64 px scenes.",
        "from transformers import AutoProcessor, GroundingDinoForObjectDetection\n\n"
        'model = GroundingDinoForObjectDetection.from_pretrained("{folder}", dtype="float32")\n'
        'processor = AutoProcessor.from_pretrained("{folder}")',
        ("detector.",),
        "Words outside the mini world are spelled in characters, and mean nothing to it.",
        (
            "transformers' own `labels` path cannot train it from scratch; the recipe calls the same loss directly.",
            "A ConvNeXt from random weights came first and found far less, on training designs too (scripts that were "
            "not kept), after fewer scenes. This one begins with the image tower of the scoring CLIP, as "
            "GroundingDINO begins with towers that know their words, looks at three of its feature maps in place of "
            "two, and learns a third of the sprites from `umm_bench.mini.world.further`. What each of these did was "
            "not measured. So the miner and the judge of concepts have learnt to see together; the generator has its "
            "own eyes.",
        ),
        "zero-shot-object-detection",
    ),
    "tiue": Model(
        "Mini TIUE",
        "diffusers",
        ("umm-diffusion", "subject-driven-generation"),
        "The MLP of UMM-Diffusion (2303.09319): an image embedding becomes pseudo words of the generator's text "
        "encoder. Unlike the paper's one word in the subject's place there are four, which stand before the subject's "
        "own, as adjectives would. Trained by `umm_bench.train` on pairs mined by `curation.build`; all else stayed "
        "frozen.",
        'from umm_bench.umm import load_tiue\n\ntiue = load_tiue("{folder}")',
        ("tiue.", "pairs."),
        "It fits this family's text and image encoders only. The picture is the concept as the generator usually draws "
        "it, mostly in the reference's main colour, less often with its second one, and patterns smear or are lost: "
        "what the generator does not draw from words it does not draw from a picture. The very drawing is rare. A "
        "style reference changes the picture but does not give it the style (seen, not measured).",
        (
            "One word added to the subject's name had the main colour in every third picture of a held-out look. Four "
            "words before it, trained for minutes on the text's summary alone, had it more often, and a few hundred "
            "steps with the UNet later in nearly two of three. The look's own words in their place do better still: "
            "what is missing is in the MLP and in the image encoder (scripts that were not kept, 36 looks).",
            "Guidance was worth as much. With one scale for text and subject, and alpha 0.8, even the look's own words "
            "before the name had the main colour in two of five pictures; with half of it by the text, and more by "
            "the subject, in more than four of five.",
            "The generator adds a summary of all positions of its text to its time embedding. While h_u had the pseudo "
            "word at the subject's words alone, as Stable Diffusion reads it, pictures with and without it were the "
            "same. Now the end token and the padding, where a causal encoder holds the whole text, have it too. Half "
            "of it there cost less of the outline and gave less of the subject (scripts that were not kept).",
            "Min-SNR weights leave little to the noisy timesteps, where this generator decides on a design: all are "
            "weighed alike. That came with the other change, so neither was measured alone.",
            "What it can know of a drawing is what the image encoder sees in it (`image_encoder.nearest_concept`). On "
            "the ViT that came before, which saw next to nothing of a held-out drawing, the concept was lost more "
            "often and outlines came apart.",
            "With a pseudo word in the name's place the concept of a held-out drawing was lost too often. From scenes "
            "that stand as those of the generator's training do it was kept, but not one held-out subject was right.",
            "Added to the name, but from loose scenes: outlines came apart, more concepts were lost than before, and "
            "more pictures had the right design nearest, as a blur may have too. From scenes that stand as the "
            "generator learnt them, in any design: outlines held, and hardly a subject came through.",
            "So its pairs vary what a name does not tell (`umm_bench.mini.world.corpus --varied`): any design, and "
            "many a sprite in a colour drawn at random. With many sprites by further hands too "
            "(`umm_bench.mini.world.further`) more subjects came right, and too many concepts were lost; fewer of them "
            "were not tried.",
            "Twice and four times the steps: as many concepts, and each time pictures nearer to the reference for the "
            "encoder that scores fidelity. The other recipes had a quarter of these steps, or less. These findings, "
            'from "With a pseudo word" on, are of scripts that were not kept, each of one training, and intervals '
            "overlap. The seeds and backgrounds of the figures above chose nothing.",
            "Identity, right in a few pictures only, hardly tells two TIUEs apart. How much less the generator errs "
            "about a drawing with its own reference than with another drawing's (`tiue.error_saved`) does. It is the "
            "smaller part of what a reference saves against none: the larger one is saved by any drawing of the "
            "concept but the usual. A third more steps, at a fifth of the rate, changed it little. Of drawings that "
            "the generator has learnt more come through (`tiue.identity_learnt`): what it never drew is hardly in "
            "reach of a word.",
        ),
    ),
}

CHECKER = (
    "The identity, concept, background, count and relation checks of the mini suite lay the true drawings over a "
    "picture and depend on no model. The `checker.*` figures say how often they are right about composed pictures of "
    "held-out designs that are no subjects of the suite, asked as often where the answer is no as where it is yes."
)

STUDIES = {
    "tradeoff.": "## What a fine-tune costs and brings\n\nEvery method on held-out subjects: "
    "`python -m umm_bench.mini.evaluation.comparison`.",
    "augmentation.": "## What each augmentation of the references does\n\n"
    "Short trainings of a TIUE that replaces the subject's words (the shipped one stands before them), which differ "
    "in nothing else, then the same held-out subjects from the same noise: "
    "`python -m benchmarks.augmentation`. Identity is the encoder's cosine with the reference, checked the checker's "
    "share of the very subject, leakage how far the background moved towards the reference's. Each was trained once: "
    "the intervals are over subjects and do not hold what another draw of the training would change. Measured on a "
    "generator that read its text by cross-attention alone, two before this one.",
}
"""Figures that other commands keep: what their names begin with, and the words above their table."""
